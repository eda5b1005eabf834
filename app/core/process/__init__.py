"""What every process needs: settings, the log, ids and times."""
