// Package pair runs a gateway at each of the two sites of a lab: what the demo
// shows and the end-to-end tests test.
package pair
