"""Networks as layers: families, allocation of parameters, training, quantisation, coding and evaluation."""
