"""Which part of a model a process has."""


class Mapping:
    def __init__(self, world_size: int = 1, rank: int = 0, tp_size: int = 1, pp_size: int = 1) -> None:
        if tp_size * pp_size != world_size:
            raise ValueError(f"world_size must equal to tp_size * pp_size, but got {world_size}, {tp_size}, {pp_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.world_size, self.rank, self.tp_size, self.pp_size = world_size, rank, tp_size, pp_size

    def to_dict(self) -> dict[str, int]:
        return {"world_size": self.world_size, "tp_size": self.tp_size, "pp_size": self.pp_size}
