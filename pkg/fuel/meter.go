package fuel

import (
	"math"

	"peercompute/pkg/mesh"
)

// Meter does the accounting of one metered instance on the host's side. The
// guest's counter holds what is left of the units granted so far; it begins at
// zero, so the first test in the guest asks for the first slice, also during
// the start function, and nothing has to be set before instantiation.
//
// A Meter belongs to the goroutine that runs the guest; Used may be called by
// that goroutine only.
type Meter struct {
	budget  int64
	granted int64
	spent   bool
}

// NewMeter returns a Meter for a budget in units of Schedule. A budget of zero
// lets nothing run that is tested at all.
func NewMeter(budget uint64) *Meter {
	return &Meter{budget: int64(min(budget, math.MaxInt64/4))}
}

// Refill is called by the refill import with the counter's value; the host
// stores the result in the counter. The error is of kind OutOfFuel, and the
// guest must then be ended.
func (m *Meter) Refill(counter int64) (int64, error) {
	if err := m.Exceeded(counter); err != nil {
		return counter, err
	}
	used := m.granted - counter
	if counter < 0 {
		m.granted = min(m.budget, used+Slice)
	}
	return m.granted - used, nil
}

// Charge takes units for work that the host does for the guest, before it does
// it; the host stores the result in the counter. The error is as for Refill.
func (m *Meter) Charge(counter int64, units uint64) (int64, error) {
	counter -= int64(min(units, math.MaxInt64/4))
	if counter >= 0 && !m.spent {
		return counter, nil
	}
	return m.Refill(counter)
}

// Exceeded reports, given the counter's value, whether the guest has used more
// than its budget. It grants nothing. A host function asks it first (by Charge
// or Exceeded), and so does the host when the guest has ended, so that nothing
// a guest does beyond its budget can be seen from outside.
func (m *Meter) Exceeded(counter int64) error {
	if m.spent || m.granted-counter > m.budget {
		m.spent = true
		return m.outOfFuel()
	}
	return nil
}

// Used is what the guest has used, given the counter's value; never more than
// the budget. It is exact whenever the schedule says that the counter is.
func (m *Meter) Used(counter int64) uint64 {
	if m.spent {
		return uint64(m.budget)
	}
	return uint64(max(0, min(m.granted-counter, m.budget)))
}

// Budget is what the Meter was made with.
func (m *Meter) Budget() uint64 { return uint64(m.budget) }

func (m *Meter) outOfFuel() error {
	return mesh.Errorf(mesh.OutOfFuel, "the guest used up its %d units of fuel", m.budget).
		WithHint("give it more with --fuel, within what the peer grants")
}
