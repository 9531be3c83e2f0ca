"""How an adapter is shared: model cards, push and pull."""
