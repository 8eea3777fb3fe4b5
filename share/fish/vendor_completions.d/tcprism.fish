# fish completion: tcprism knows its own options, so ask it.
_TCPRISM_COMPLETE=fish_source tcprism | source
