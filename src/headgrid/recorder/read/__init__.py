"""Arguments of attention functions -> one `AttentionCall` in one layout."""
