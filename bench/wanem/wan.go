package wanem

import "log/slog"

// Direction of a WAN.
type Direction int

// The two directions, between the first and the second TAP.
const (
	AB Direction = iota
	BA
)

func (d Direction) String() string {
	if d == AB {
		return "a->b"
	}
	return "b->a"
}

// Config of a WAN. The zero value is two perfect lines.
type Config struct {
	AB Profile // from the first TAP to the second
	BA Profile // and back

	// Seed of all that is random. The same seed draws the same fates.
	Seed uint64

	// MTU of the TAPs in bytes. Zero means 1500.
	MTU int

	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// Emulator is a WAN that runs, in this process or in a child.
type Emulator interface {
	// Set changes one direction.
	Set(Direction, Profile) error

	// Cut breaks one direction and loses what is under way in it.
	Cut(Direction) error

	// Heal mends one direction.
	Heal(Direction) error

	// Counters of one direction since the start.
	Counters(Direction) (Counters, error)
}

// Both calls f, such as an Emulator's Cut, for both directions.
func Both(f func(Direction) error) error {
	if err := f(AB); err != nil {
		return err
	}
	return f(BA)
}
