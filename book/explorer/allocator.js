/* PyTorch's CUDA allocator, as attnmem/prediction/allocator.py has it. */

const MIB = 2n ** 20n;

class CachingAllocator {
  allocated = 0n;
  reserved = 0n;
  peakAllocated = 0n;
  segments = 0;
  free = [];

  allocate(size) {
    size = roundUp(size, 512n);
    const small = size <= MIB;
    let block = null;
    for (const other of this.free)
      if (other.small === small && other.size >= size && (!block || comesFirst(other, block)))
        block = other;
    if (block) this.free.splice(this.free.indexOf(block), 1);
    else block = this.segment(size, small);
    const rest = block.size - size;
    if (small ? rest >= 512n : rest > MIB) {
      const { segment, after } = block;
      const address = block.address + size;
      const remainder = { segment, address, size: rest, small, before: block, after };
      if (after) after.before = remainder;
      block.after = remainder;
      block.size = size;
      this.keep(remainder);
    }
    block.free = false;
    this.allocated += block.size;
    if (this.allocated > this.peakAllocated) this.peakAllocated = this.allocated;
    return block;
  }

  /* All of its state that decides what it does next, but for the order of segments. */
  state(live) {
    const text = ({ segment, address, size }) => `${segment} ${address} ${size}`;
    const blocks = live.map((tensor) => text(tensor.block));
    return [...this.free.map(text).sort(), "live", ...blocks].join();
  }

  segment(size, small) {
    const taken = small ? 2n * MIB : size < 10n * MIB ? 20n * MIB : roundUp(size, 2n * MIB);
    this.reserved += taken; // nothing is ever given back: its peak, too
    return { segment: this.segments++, address: 0n, size: taken, small };
  }

  release(block) {
    this.allocated -= block.size;
    const { before, after } = block;
    if (before?.free) {
      this.free.splice(this.free.indexOf(before), 1);
      block.address = before.address;
      block.size += before.size;
      block.before = before.before;
      if (block.before) block.before.after = block;
    }
    if (after?.free) {
      this.free.splice(this.free.indexOf(after), 1);
      block.size += after.size;
      block.after = after.after;
      if (block.after) block.after.before = block;
    }
    this.keep(block);
  }

  keep(block) {
    block.free = true;
    this.free.push(block);
  }
}

/* The smallest block is taken, of equal ones that with the lowest address. */
function comesFirst(a, b) {
  if (a.size !== b.size) return a.size < b.size;
  if (a.segment !== b.segment) return a.segment < b.segment;
  return a.address < b.address;
}
