import { request } from 'node:http'

/** PUTs bytes over a unix socket; the answer's status and, if it is an error, Docker's message. */
export function upload(socketPath: string, path: string, body: Buffer, method = 'PUT'): Promise<{ status: number; message: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, method, path, headers: { 'content-type': 'application/x-tar', 'content-length': body.length } }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        resolve({ status: answer.statusCode ?? 0, message: text.startsWith('{') ? (JSON.parse(text) as { message?: string }).message ?? '' : text })
      })
      answer.on('error', reject)
    })
    call.on('error', reject)
    call.end(body)
  })
}
