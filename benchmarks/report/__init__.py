"""The paper's tables with your rows in them."""
