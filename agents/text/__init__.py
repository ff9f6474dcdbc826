"""Text, as signals need it: how it is cut, folded, matched, scored and counted; no signal lives here."""
