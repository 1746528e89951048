"""SGD with Nesterov's momentum, to the last bit that of torch.optim, whose first use imports all of torch.compile.

That import takes seconds of every start and is for programs that are compiled. Momentum: Sutskever et al. 2013, in the
form of torch.optim.SGD.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Sgd:
    """Moves parameters against their gradients.

    Args:
        groups: parameters with the weight decay of each group.
        momentum: 0 is none; otherwise Nesterov's.

    Attributes:
        lr: of the last step.
        buffers: the momentum of each parameter that has moved, in its shape and type.
    """

    def __init__(self, groups: Iterable[tuple[Sequence[Tensor], float]], lr: float, momentum: float) -> None:
        self.groups, self.lr, self.momentum = [(list(one), decay) for one, decay in groups], lr, momentum
        self.buffers: dict[Tensor, Tensor] = {}

    def forget_gradients(self) -> None:
        """As torch.optim's `zero_grad(set_to_none=True)`."""
        for parameters, _ in self.groups:
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One step; a parameter without a gradient stays as it is. Lists take one kernel on a GPU, not one each."""
        self.lr = lr
        for parameters, decay in self.groups:
            moved = [parameter for parameter in parameters if parameter.grad is not None]
            gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
            if not moved:
                continue
            if decay:
                gradients = list(torch._foreach_add(gradients, moved, alpha=decay))
            if self.momentum:
                buffers = self._buffers(moved)
                torch._foreach_mul_(buffers, self.momentum)
                torch._foreach_add_(buffers, gradients)
                gradients = list(torch._foreach_add(gradients, buffers, alpha=self.momentum))
            torch._foreach_add_(moved, gradients, alpha=-lr)

    def _buffers(self, moved: list[Tensor]) -> list[Tensor]:
        for parameter in moved:
            if parameter not in self.buffers:
                self.buffers[parameter] = torch.zeros_like(parameter)
        return [self.buffers[parameter] for parameter in moved]
