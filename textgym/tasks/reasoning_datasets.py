"""Which data sets of Reasoning Gym can be trusted with the texts of an agent, and why the others cannot.

Each data set of the version below was tried offline with up to 100 questions, twice with different hash seeds, and
its verifier with each question's own answer, with changes to it, and with fifty texts that no verifier should like.
The tests repeat a part of it.
"""

from __future__ import annotations

VERSION = "0.1.25"
"""Of ``reasoning-gym``; another version's verifiers would have to be read and tried anew."""

DATASETS: frozenset[str] = frozenset(
    """
    acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic binary_alternation bitwise_arithmetic
    caesar_cipher calendar_arithmetic chain_sum circuit_logic color_cube_rotation count_bits count_primes
    course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships
    figlet_font fraction_simplification futoshiki gcd group_anagrams gsm_symbolic jugs kakurasu knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble mahjong_puzzle manipulate_matrix maze mini_sudoku
    modulo_grid needle_haystack number_filtering number_format number_sequence number_sorting palindrome_generation
    palindrome_partitioning path_star polynomial_equations power_function products quantum_lock rearc
    rectangle_count rotate_matrix rotten_oranges self_reference sentence_reordering shortest_path simple_equations
    simple_geometry sokoban spell_backward string_manipulation string_splitting string_synthesis sudoku survo
    syllogism tsumego word_sequence_reversal word_sorting zebra_puzzles
    """.split()
)
"""Data sets that are offered."""

_EXECUTES = "its verifier executes the text of an answer"
_ACCEPTS = "its verifier accepts answers that say nothing"
_HANGS = "its verifier does not come back from some short answers"
_RAISES = "its verifier raises on some answers"
_NO_ANSWER = "some of its questions come without an answer"
_GLOBAL = "it draws from, or seeds, the global random generators"
_UNREPEATABLE = "its questions differ between two runs with one seed"
_PRINTS = "it writes to the console"
_MIXTURE = "it is a mixture of the others, any of which may be refused"

REFUSED: dict[str, str] = {
    "binary_matrix": _EXECUTES,
    "countdown": _EXECUTES,
    "intermediate_integration": _EXECUTES,
    "n_queens": _EXECUTES,
    "polynomial_multiplication": _EXECUTES,
    "puzzle24": _EXECUTES,
    "simple_integration": _EXECUTES,
    "spiral_matrix": _EXECUTES,
    "string_insertion": _EXECUTES,
    "complex_arithmetic": _ACCEPTS,
    "game_of_life_halting": _ACCEPTS,
    "coin_flip": _HANGS,
    "game_of_life": _RAISES,
    "prime_factorization": _RAISES,
    "ab": _NO_ANSWER,
    "boxnet": _NO_ANSWER,
    "graph_color": _NO_ANSWER,
    "propositional_logic": _NO_ANSWER,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "codeio": _GLOBAL,
    "list_functions": _GLOBAL,
    "pool_matrix": _GLOBAL,
    "isomorphic_strings": _UNREPEATABLE,
    "knight_swap": _UNREPEATABLE,
    "ransom_note": _UNREPEATABLE,
    "time_intervals": _UNREPEATABLE,
    "word_ladder": _UNREPEATABLE,
    "bf": _PRINTS,
    "tower_of_hanoi": _PRINTS,
    "composite": _MIXTURE,
}
"""Data sets that are not offered, and why."""
