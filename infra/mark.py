"""The variable that marks what a watched command has started (`infra.watcher`)."""

MARK = "FEDROUND_WATCHED"
