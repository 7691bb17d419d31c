// Package wasm runs workloads as WebAssembly guests: programs built for WASI
// preview 1, executed by wazero in a worker process for each peer that asked for
// them. It is the only package that knows wazero.
//
// peerd never runs a guest's code, compiles it, or parses what it says over HTTP.
// A worker confines itself before it sees a guest, gets files and connections from
// peerd instead of opening them, and ends when peerd does. A guest that breaks out
// of WebAssembly finds itself in a process that can do nothing but compute.
//
// Three shapes: a service is a CGI program (RFC 3875), of which every request gets
// a fresh instance, so no state passes from one request to the next; a server keeps
// one instance running, which accepts connections, while there are requests; a job
// runs once from its start to its end. Exports cannot tell a server: a Go program of
// either kind has the same, so the spec says it.
//
// What a guest can do, and what it cannot (docs/capabilities.md says how there is more):
//
//	files        none, or a private directory in memory
//	network      none; a service is spoken to through its standard input and output, a
//	             server through connections in memory, made by its worker
//	environment  what the spec passes, and for a service CGI's description of the request
//	arguments    what the spec passes, after the workload's name
//	clock        monotonic, from 1 ns at the instance's start; the wall clock reads 1 January
//	             2026, 00:00 UTC plus that, so it tells nobody the time and yet goes on; in a
//	             job it is virtual: a nanosecond for each unit of fuel, and what was slept
//	random       from the operating system; in a job, from the seed that came with it
//	output       a service's standard output is its answer and standard error its log; a
//	             job's both go to whoever attached to it, else to its log
//	processor    the spec's share, all instances of a workload together
//	memory       the spec's limit for each instance; all of one peer's share a worker's
//	time, fuel   the spec's limits for each instance
package wasm
