"""What tests of the recorder share."""

import pytest
import torch

from headgrid.recorder.watch.intercept import observe

# Two threads of torch that wait for each other cost more than they save on tensors this small.
torch.set_num_threads(1)

#: A script and its model, which tests run.
collect_ignore = ["self_forcing"]


@pytest.fixture(scope="module")
def watched():
    """Watch attention functions all the while: opening a recorder is cheap then."""
    with observe(lambda read: None, {}):
        yield
