# Completion for fleetctl in fish. fleetctl itself knows what fits; this hands it the words up to the cursor.
function __fleetctl_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l word (commandline --current-token --cut-at-cursor)
    # Quoted: of an empty word nothing at all would be left.
    command fleetctl __complete -- $words "$word" 2>/dev/null
end
complete --command fleetctl --no-files --keep-order --arguments '(__fleetctl_complete)'
