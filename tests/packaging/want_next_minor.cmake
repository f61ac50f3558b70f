# Read before the consumer's project: any request for tally then also needs version 0.2.
find_package(tally 0.2 REQUIRED)
