"""Who may call what: clients, their keys, and which jobs are theirs."""
