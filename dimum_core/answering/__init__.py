"""A student's process: runs the code that was handed in, then answers the grader's calls.

It holds no solution, no seed and no mark, so nothing in it is worth tampering with: it can only return results, which the grader
judges. The package imports nothing of dimum_core.course, and in these processes nobody can.
"""
