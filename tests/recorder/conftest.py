"""Two threads of torch that wait for each other cost more than they save on tensors this small."""

import torch

torch.set_num_threads(1)

#: A script and its model, which tests run.
collect_ignore = ["self_forcing"]
