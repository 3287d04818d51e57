# Completion for fleetctl in bash. fleetctl itself knows what fits; this hands it the words up to the cursor.
_fleetctl() {
    local line=${COMP_LINE:0:COMP_POINT} reply kept= quoted=
    local -a words typed replies
    # Not COMP_WORDS: those are cut at the = of options, and at the @ and : of unit names.
    read -a words <<<"$line"
    read -ra typed <<<"$line"
    [[ $line == *[[:blank:]] ]] && words+=("") typed+=("")
    [[ ${words[-1]} == [\"\']* ]] && quoted=1 words[-1]=${words[-1]:1}
    # A reply takes the place of $2, which is what stands behind the last cut.
    [[ ${typed[-1]} == *"$2" ]] && kept=${typed[-1]%"$2"}
    mapfile -t replies < <(command fleetctl __complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    for reply in "${replies[@]}"; do
        reply=${reply%%$'\t'*}
        [[ $reply == */ || $reply == *= ]] && compopt -o nospace
        [[ $quoted || $reply != *[![:alnum:]@%:,./=~+_-]* ]] || printf -v reply %q "$reply"
        COMPREPLY+=("${reply#"$kept"}")
    done
}
complete -o nosort -F _fleetctl fleetctl
