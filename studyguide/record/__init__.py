"""What a run leaves behind: events and their clocks, reports, logs, charts, traces, metrics."""
