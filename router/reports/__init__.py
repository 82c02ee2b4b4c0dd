"""The finance reports: what is asked for (`query`), what is computed (`facts`, `figures`, `report`), its formats."""
