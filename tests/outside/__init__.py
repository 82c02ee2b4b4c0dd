"""The service tried from outside, by its own description and by what no description foresees."""
