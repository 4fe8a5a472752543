"""PyTorch's DistributedDataParallel over gloo, one thread a rank: the time of a step as `benches/scale.rs` times ours, by one
line of CSV from rank 0.

    ddp.py RANKS THREADS BATCH SECONDS WIDTH...
"""

import statistics, sys, time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def run(rank, ranks, threads, batch, seconds, widths):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    modules = []
    for d, next_d in zip(widths, widths[1:]):
        modules += [nn.Linear(d, next_d), nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    if ranks > 1:
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29511", rank=rank, world_size=ranks)
        # Without a copy of each gradient into the buffer that is sent.
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)
    mse = nn.MSELoss()
    x, y = torch.rand(batch // ranks, widths[0]), torch.rand(batch // ranks, widths[-1])
    times, start, over = [], time.perf_counter(), torch.zeros(1)
    while not over:
        begin = time.perf_counter()
        sgd.zero_grad()
        (0.5 * mse(model(x), y)).backward()
        sgd.step()
        times.append(time.perf_counter() - begin)
        if len(times) % 8 == 0:
            over[0] = rank == 0 and time.perf_counter() - start > seconds
            if ranks > 1:
                dist.broadcast(over, 0)
    if rank == 0:
        step = statistics.median(times[len(times) // 4 :])
        print(f"ddp,{ranks},{threads},{'-'.join(map(str, widths))},{batch},{step * 1e6:.1f},,")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    ranks, threads, batch = map(int, sys.argv[1:4])
    arguments = (ranks, threads, batch, float(sys.argv[4]), list(map(int, sys.argv[5:])))
    if ranks == 1:
        run(0, *arguments)
    else:
        mp.spawn(run, args=arguments, nprocs=ranks)
