"""How each figure is taken: time, memory, work, how they scale, and how good a gradient is.

| module | figure |
| --- | --- |
| `update` | what is measured: one update of a rule, the forward pass, `bptt` |
| `clock` | seconds of synchronised blocks, and paired ratios of interleaved ones |
| `memory` | algorithm bytes, process peak, device peak |
| `work` | floating-point operations, bytes moved, operations, compilations |
| `roofline` | the machine's peaks, and a rule's share of what they allow |
| `cost` | all of these for one update |
| `scaling` | exponents against T, n and B |
| `gradients` | cosine, bias and variance against reverse mode |
| `gate` | whether a revision is slower or bigger than another; `side` is the process of one of them |
| `process` | a process of its own with its threads pinned, in which to measure |

Nothing here imports a framework before it is used.
"""
