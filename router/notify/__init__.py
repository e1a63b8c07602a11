"""People are told: what has to be told is watched here, made into sentences, and sent by webhook or e-mail."""
