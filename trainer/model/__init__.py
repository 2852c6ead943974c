"""AVFullDiT: two towers, joint attention, AVSyncRoPE."""
