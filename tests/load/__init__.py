"""The service under load: more than it can take, for long, and while its processes are replaced."""
