"""Measurements of one update: time, memory, work.

| module | figure |
| --- | --- |
| `update` | the measured programs: one update of a rule, the forward pass, `bptt` |
| `clock` | seconds of synchronised blocks, and paired ratios of interleaved ones |
| `memory` | algorithm bytes, process peak, device peak |
| `work` | floating-point operations, bytes moved, operations, compilations |
| `roofline` | the machine's peaks, and a rule's share of them |
| `cost` | all of these for one update |

Nothing here imports a framework before it is used.
"""
