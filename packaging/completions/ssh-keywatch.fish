# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ssh_keywatch_global_optspecs
    string join \n config= rules= v/verbose q/quiet color= h/help V/version
end

function __fish_ssh_keywatch_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ssh_keywatch_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ssh_keywatch_using_subcommand
    set -l cmd (__fish_ssh_keywatch_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -s V -l version -d 'Print version'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "run" -d 'Watch, and raise alerts, in the foreground'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "check" -d 'Validate configuration and rules, and say what can be watched here'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "tail" -d 'Read the alert log'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "replay" -d 'Ask the rules about recorded events'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "rules" -d 'List rules, show one, or try their cases'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "status" -d 'Say how the running daemon fares: mode, coverage, counters'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "inventory" -d 'List every key in the watched places, with facts and origin'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l log -d 'Write alerts to this file' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l state -d 'Keep the lock, and what outlives a run, in this directory' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l stdout -d 'Alerts on stdout: text, json or none' -r -f -a "auto\t'Text on a terminal, nothing elsewhere'
text\t'Text for a person'
json\t'One JSON document a line'
none\t'Nothing'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l backend -d 'The kernel interface' -r -f -a "auto\t'fanotify, and inotify where it is not permitted'
fanotify\t'fanotify or nothing'
inotify\t'inotify, which cannot name the writer'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l hold -d 'Which writers the kernel holds while they are identified' -r -f -a "new\t'Only the making of new files'
all\t'Every opening of a watched file'
off\t'No one'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l control -d 'Answer `status` on this socket' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l no-journal -d 'Send no alerts to the journal'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -l dry -d 'Debug beside a running daemon: alerts on stdout alone; no lock, log, journal, state or control socket is touched'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -l log -d 'Check instead that the alert log, with what was rotated, is as it was written' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -s n -l lines -d 'Show the last N lines that match [default: 10, or all with --since]' -r
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l since -d 'Only from this moment on: a date, a time (RFC 3339), or how long ago (10m, 2h, 1d)' -r
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l rule -d 'Only this rule: its id, or a part of its name' -r
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l user -d 'Only this user: name or id, of the process or of the login' -r
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l path -d 'Only these files: a glob, in which * crosses / as it does in rules' -r
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l severity -d 'Only alerts of at least this severity' -r -f -a "low\t'21'
medium\t'47'
high\t'73'
critical\t'99'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l log -d 'Read this log' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -s f -l follow -d 'Go on with what is appended, across rotation'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l building-blocks -d 'Also alerts of rules that are building blocks for others'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -l json -d 'Show the lines as they stand in the log'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand tail" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -l source -d 'Where the documents come from [default: recognised one by one]' -r -f -a "ecs\t'ECS documents of any other source, taken as they are'
defend\t'Elastic Defend (logs-endpoint.events.file-*)'
endgame\t'Elastic Endgame (endgame-*)'
sentinel-one\t'`SentinelOne` through Elastic\'s integration (logs-sentinel_one_cloud_funnel.*)'
sentinel-one-raw\t'`SentinelOne` Cloud Funnel lines as they are exported, mapped to ECS'
ssh-keywatch\t'The alert log of ssh-keywatch'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -l suppress -d 'Suppress alerts as the daemon would (`max_signals`, `alert_suppression`), by the time of the events'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -f -a "list" -d 'List every rule file and what became of it (the default)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -f -a "show" -d 'Show a rule as a person reads it'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -f -a "test" -d 'Try rules against the cases beside them'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and not __fish_seen_subcommand_from list show test help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -l json -d 'One JSON document a line'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from help" -f -a "list" -d 'List every rule file and what became of it (the default)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show a rule as a person reads it'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from help" -f -a "test" -d 'Try rules against the cases beside them'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand rules; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -l control -d 'Ask on this socket' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -l json -d 'Show everything as one JSON document'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -l log -d 'Look up in this alert log who made a key' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -l config -d 'The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -l rules -d 'Load rules from this directory, instead of the shipped and the admin\'s ones (repeatable)' -r -F
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -l json -d 'One JSON document a line'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -s v -l verbose -d 'Say more on stderr (twice: everything)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -s q -l quiet -d 'Say only errors on stderr'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand inventory" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "run" -d 'Watch, and raise alerts, in the foreground'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "check" -d 'Validate configuration and rules, and say what can be watched here'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "tail" -d 'Read the alert log'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "replay" -d 'Ask the rules about recorded events'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "rules" -d 'List rules, show one, or try their cases'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "status" -d 'Say how the running daemon fares: mode, coverage, counters'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "inventory" -d 'List every key in the watched places, with facts and origin'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and not __fish_seen_subcommand_from run check tail replay rules status inventory help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and __fish_seen_subcommand_from rules" -f -a "list" -d 'List every rule file and what became of it (the default)'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and __fish_seen_subcommand_from rules" -f -a "show" -d 'Show a rule as a person reads it'
complete -c ssh-keywatch -n "__fish_ssh_keywatch_using_subcommand help; and __fish_seen_subcommand_from rules" -f -a "test" -d 'Try rules against the cases beside them'
