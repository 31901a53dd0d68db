# Values that bootsurgeon itself knows: disks, backups, images.
function __bootsurgeon_answer
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    $program __complete $words "$current" 2>/dev/null
end
function __bootsurgeon_values
    __bootsurgeon_answer | tail -n +2
end
function __bootsurgeon_offers
    __bootsurgeon_answer | head -n 1 | string match -q -- $argv[1]
end
complete -c bootsurgeon -n "__bootsurgeon_offers values" -f -k -a "(__bootsurgeon_values)"
complete -c bootsurgeon -n "__bootsurgeon_offers files" -k -a "(__bootsurgeon_values)"
