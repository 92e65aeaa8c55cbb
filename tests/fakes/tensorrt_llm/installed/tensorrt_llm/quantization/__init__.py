"""How weights are stored in fewer bits."""
