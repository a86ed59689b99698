import { native } from './native.js'

/** A descriptor of memory with the file's contents that nobody, whatever his rights, can change any more. The caller closes it. */
export const sealedCopy = (path: string): Promise<number> => native.sealedCopy(path)
