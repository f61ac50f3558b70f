#pragma once

namespace tally::detail {

/// OpenBLAS has working memory for so many threads that ask at once, and ends the program at the next.
inline constexpr int kMostThreads = 128;

/// Where the address space of the process is limited, whether it has room for the products of so many threads at once,
/// stacks included; true without a limit.
bool has_product_memory(int threads);

/// Where the address space is limited, has OpenBLAS map now what so many threads of products take at once, and keep it:
/// it asks without end for what it cannot have, and something else may have taken the room by then. Called while no
/// product is being computed. Throws BackendError where the room is not there.
void take_product_memory(int threads);

}  // namespace tally::detail
