# Values that bootsurgeon itself knows: disks, backups, images.
_bootsurgeon_values() {
    local kind='' value what prefix=''
    COMPREPLY=()
    [[ $2 == --*=* ]] && prefix="${2%%=*}="
    while IFS=$'\t' read -r value what; do
        if [[ -z $kind ]]; then kind=$value; else COMPREPLY+=("$prefix$value"); fi
    done < <("${1/#\~\//$HOME/}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case $kind in
        values) compopt +o default +o bashdefault 2>/dev/null ;;
        files)
            # Without values the shell completes names of files by itself.
            if [[ ${#COMPREPLY[@]} -gt 0 && -z $prefix ]]; then
                compopt -o filenames 2>/dev/null
                while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$2")
            fi
            ;;
        *) return 1 ;;
    esac
    return 0
}

