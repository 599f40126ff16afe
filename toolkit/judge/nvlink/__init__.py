"""NVLink by the rules of its platform mode: GPUs, links, domain, services, switch trays. Pure: reads nothing."""
