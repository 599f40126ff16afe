"""What `rackproof gates lint` holds against a gate, and what to do: numbers in files, never a machine."""

LINT_CODES = {
    "GATE_IMPOSSIBLE": "The limit is above what any hardware of the SKU can do: every node fails it. Take a limit that "
    "healthy hardware measured, with its source.",
    "GATE_VACUOUS": "The limit lets broken hardware pass, or there is none. The lint shows the range that catches "
    "something.",
    "GATE_OFF_PATH": "The environment takes away what the gate says it measures. Drop the variable, or state the scope "
    "that is measured.",
    "GATE_UNDERSIZED": "The message size is under 1 GiB, where time is latency. Judge rows of 1 GiB and more.",
    "GATE_UNIT_SLIP": "The number is right in another unit, or a digit short. The lint says which.",
    "GATE_UNSOURCED": "The limit has no source. Name the document, the measurement or the decision, with its date.",
    "GATE_UNDECIDABLE": "Healthy readings are further apart than the limit, so the gate could never answer.",
    "GATE_CONTRADICTS_NEIGHBOUR": "A warning: one publisher's floor for the newer SKU is under that of the older one. "
    "Raise it, or say why it is slower.",
}
