_Pair = tuple[int, int]

class Steps:
    KH: int
    KW: int
    SH: int
    SW: int
    PT: int
    PL: int
    PB: int
    PR: int
    DH: int
    DW: int
    def __new__(
        cls,
        kernel: _Pair,
        stride: _Pair,
        pads: tuple[int, int, int, int],
        dilation: _Pair,
    ) -> Steps: ...
