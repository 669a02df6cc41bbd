"""The nouns everybody shares. No input or output happens here."""
