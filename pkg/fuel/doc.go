// Package fuel meters WebAssembly deterministically: it rewrites a validated
// module so that every executed operator is charged under schedule fuel/1. It
// knows no runtime.
package fuel
