"""What another policy would have earned on payments that were routed already, from the log's propensities."""
