// Package netns does things inside the network namespace of a workload: on a
// thread that nothing else runs on meanwhile, and never in this machine's own.
package netns
