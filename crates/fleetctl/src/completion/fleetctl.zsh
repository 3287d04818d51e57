#compdef fleetctl
# Completion for fleetctl in zsh. fleetctl itself knows what fits; this hands it the words up to the cursor.
_fleetctl() {
    local line value
    local -a open closed
    # "value<tab>what it is" becomes "value:what it is", as _describe wants it.
    for line in "${(@f)$(command fleetctl __complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        value=${line%%$'\t'*}
        [[ -n $value ]] || continue
        line=${value//:/\\:}${line#"$value"}
        line=${line/$'\t'/:}
        if [[ $value == */ || $value == *= ]]; then
            open+=("$line")
        else
            closed+=("$line")
        fi
    done
    _describe -V fleetctl closed -- open -S ''
}
if [[ $funcstack[1] == _fleetctl ]]; then
    _fleetctl "$@"
else
    compdef _fleetctl fleetctl
fi
