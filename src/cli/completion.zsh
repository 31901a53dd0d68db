# Values that bootsurgeon itself knows: disks, backups, images.
_bootsurgeon_values() {
    local -a lines offers
    local program="${words[1]/#\~\//$HOME/}"
    lines=("${(@f)$("$program" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    [[ $lines[1] == (values|files) ]] || return 1
    [[ $PREFIX == --*=* ]] && compset -P '*='
    offers=("${(@)lines[2,-1]//:/\\:}")
    offers=("${(@)offers/$'\t'/:}")
    (( $#offers )) && _describe -V 'value' offers
    [[ $lines[1] == files ]] && _files
    return 0
}
