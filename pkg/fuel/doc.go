// Package fuel meters WebAssembly deterministically: it rewrites a
// module so that every executed operator is charged under schedule fuel/1, see
// Schedule. It owns what a program is charged and where a guest is stopped; it
// knows no runtime, and a host needs only Instrument and a Meter:
//
//	m, err := fuel.Instrument(code, fuel.Options{})
//	meter := fuel.NewMeter(budget)
//
// The host provides the import RefillModule, RefillName, which sets the global
// exported as CounterExport to meter.Refill of its value, or ends the guest if
// that fails. Host functions ask meter.Charge or meter.Exceeded first. When the
// guest has ended, meter.Exceeded says whether it stayed within its budget, and
// meter.Used what it used. The counter begins at zero, so nothing needs to be
// set up before a start function runs.
package fuel
