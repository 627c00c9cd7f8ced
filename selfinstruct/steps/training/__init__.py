"""The student: from records to token ids, a trained adapter, a merged model and its measures."""
