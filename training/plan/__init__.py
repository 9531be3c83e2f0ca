"""What a run would need, before anything is loaded: memory, time, caption lengths, and whether it fits."""
