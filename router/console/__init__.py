"""The console: server-rendered pages for people, in the same application as the interface for machines."""
