"""The laws of pictures as sequences of numbers: quantisation, orders, and the choice of the next one."""
