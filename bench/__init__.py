# SPDX-License-Identifier: MIT
"""Compare convnet with other libraries, honestly: ``python -m bench --help``.

    __main__    the command line
    run         the cases in order, each measured, printed and kept
    layers      the tables: which layers and poolings are timed
    selection   random shapes: does convnet choose the fastest of its algorithms?
    cases       what a case is: shapes, operands, amount of work
    timing      one case: every library judged against float64, then timed in turns
    process     a library's process, as the bench sees it
    worker      a library's process, from the inside
    libraries/  one file per library: how it does each operation
    machine     what the hardware can do: FMA peak, memory bandwidth, description
    results     what was measured, and the statistics of it
    report      tables for the terminal, JSON for a file
    plot        the bar chart

To add a library, write a class as in `libraries`; to add a kind of work, write a class
as in `cases` and a table in `layers`.
"""
